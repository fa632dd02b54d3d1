package testenv

import "os"

// Thorough reports whether tests that take many minutes at real managers are wanted, as `make thorough` does:
// each thing that they look at is looked at by a smaller test too.
func Thorough() bool { return os.Getenv("PORTOLAN_THOROUGH") != "" }
