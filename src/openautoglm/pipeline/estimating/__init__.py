"""What training, compressing and serving will take, told before anything runs."""
