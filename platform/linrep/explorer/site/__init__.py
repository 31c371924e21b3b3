"""The explorer's site: pages over the results of a workspace that open from disk, with no server and no network.

Python writes data, the scripts in `linrep/explorer/assets` show it. They meet in *shards*, files that call one function with a
name and a value (`linrep.explorer.site.shards`): a page that is opened from disk may load scripts, and nothing else.

A page is added in three steps. A module here writes its shards from `linrep.explorer.site.results.Results`, and
`linrep.explorer.site.build` calls it. A script in the assets calls `LineOfSight.page(name, {title, show})`, and
`linrep.explorer.site.build.SCRIPTS` lists it. `show(container, query, site)` builds elements from `LineOfSight.load(shard)`. The
address of a page is `#/name?key=value`, and what a person chose stands in it, so that a view can be sent as a link.

Whatever comes from the user is text: it goes through `LineOfSight.el` and never becomes markup.
"""
