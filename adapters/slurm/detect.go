package slurm

import "context"

// Detect reports whether a local Slurm answers with its default settings, and its
// version.
func Detect(ctx context.Context) (version string, err error) {
	f, err := (&commands{budget: newBudget(-1)}).probe(ctx)
	if err != nil {
		return "", err
	}
	return f.Version, nil
}
