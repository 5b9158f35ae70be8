"""The doctor, against things that are well and things that are not."""
