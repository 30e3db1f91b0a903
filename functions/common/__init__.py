"""What the functions share: settings, logs, figures, the ports, and the use cases behind them."""
