"""A node told whole: on one screen, and in one file for somebody who helps."""
