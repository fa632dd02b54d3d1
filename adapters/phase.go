package adapters

import "fmt"

var phaseNames = [...]string{
	Unknown: "unknown", Queued: "queued", Held: "held", Running: "running", Suspended: "suspended",
	Exited: "exited", Stopped: "stopped", Cancelled: "cancelled", Lost: "lost",
}

// Phases lists every phase, for tables that must be complete.
func Phases() []Phase {
	phases := make([]Phase, len(phaseNames))
	for i := range phases {
		phases[i] = Phase(i)
	}
	return phases
}

// String gives the phase in a word.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// MarshalText writes the word.
func (p Phase) MarshalText() ([]byte, error) {
	if int(p) >= len(phaseNames) {
		return nil, fmt.Errorf("phase %d has no name", uint8(p))
	}
	return []byte(phaseNames[p]), nil
}

// UnmarshalText reads the word.
func (p *Phase) UnmarshalText(text []byte) error {
	for i, name := range phaseNames {
		if name == string(text) {
			*p = Phase(i)
			return nil
		}
	}
	return fmt.Errorf("there is no phase %q", text)
}
