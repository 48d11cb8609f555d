//! What no driver sends: the protocol spoken by hand.
