"""What measures the program: ``make bench``. The tests do not collect it."""
