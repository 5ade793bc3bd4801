"""Using a trained model: prediction and export."""
