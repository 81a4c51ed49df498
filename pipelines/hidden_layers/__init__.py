"""What the hidden layers know: probes, the depth to freeze, layer ablation, a map before and after fine-tuning."""
