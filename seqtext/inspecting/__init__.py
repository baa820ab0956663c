"""What happens inside a model, as plain numbers: gradients, gates, attention, embeddings."""
