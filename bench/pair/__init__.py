"""Two candidates of which each is better on its own kind of text, and a loop that has both."""
