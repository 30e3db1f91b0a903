"""What the traffic that was seen would cost at AWS's prices."""
