//! What is promised of control groups: against made-up files for both versions, and real ones where the machine lets us.
