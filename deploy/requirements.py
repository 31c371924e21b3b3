"""Print the project's requirements, one a line: `python deploy/requirements.py pyproject.toml > requirements.txt`.

For nodes and images that get the packages before the code: pip installs a project's requirements only together with the project.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
print("\n".join(project["dependencies"]))
