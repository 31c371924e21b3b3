/* The last script of the page: everything is registered. */
LineOfSight.start();
