"""What puts a release on a board, starts it, and takes it away again: the standard library alone, run by the board's
own Python from a file that the host has sent."""
