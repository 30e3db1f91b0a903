"""The AWS services that functions call, behind one endpoint that checks signatures and permissions."""
