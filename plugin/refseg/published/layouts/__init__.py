"""One module for each layout a published benchmark is released in; `find` reads it and gathers all that is missing."""
