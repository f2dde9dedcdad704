"""What clients may ask, whatever they speak: the forms, the bounds, and the one check of both."""
