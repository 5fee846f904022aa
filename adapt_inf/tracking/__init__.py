"""What MLflow holds of a project, and the tables that the terminal shows."""
