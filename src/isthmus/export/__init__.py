"""What one takes away from isthmus: a report, and a bridge in the forms that other tools read."""
