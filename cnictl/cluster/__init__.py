"""The cluster on one screen: what all hosts say, gathered over one transport."""
