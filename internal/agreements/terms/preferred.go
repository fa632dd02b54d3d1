package terms

import "github.com/portolan-project/portolan/agreement"

// Preferred reads what the preferred alternative of an offer, a template or an
// agreement asks for, whenever that is: its times are not held against a clock.
// Errors are those of Read.
func Preferred(a *agreement.Agreement) (*Request, error) {
	alternatives, _ := agreement.Choose(a.Terms, a.Preferences(), 1)
	x := *a
	if x.Terms = nil; len(alternatives) > 0 {
		x.Terms = alternatives[0].Terms
	}
	return read(&x)
}
