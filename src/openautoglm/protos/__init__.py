"""What goes over the wire of gRPC: two .proto files, and the Python code that `make protos` makes of them."""
