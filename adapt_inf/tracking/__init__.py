"""What a person sees of a round: MLflow, pictures, tables."""
