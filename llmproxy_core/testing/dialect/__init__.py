"""What every dialect must do, as tests: declare what your protocol can say, and inherit them."""
