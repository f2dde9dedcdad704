"""The service over gRPC: the Open Inference Protocol, our text service, health and reflection."""
