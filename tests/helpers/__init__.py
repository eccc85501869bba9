"""What tests of several rooms share: small data, networks and runs, programs as users start them."""
