"""The reporting room: papers' tables with our numbers beside theirs, from the records alone; never imports torch."""
