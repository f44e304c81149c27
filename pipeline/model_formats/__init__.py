"""Models as users have them: which format a path is, how it is read, and how it becomes what a step takes."""
