"""Tasks: labelled data, and a description of what is known without labels."""
