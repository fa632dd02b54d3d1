package bes

import "testing"

// TestTransitionsHoldTheBaseModel walks every pair of states (GFD.108 §4).
func TestTransitionsHoldTheBaseModel(t *testing.T) {
	all := []State{Pending, Running, Finished, Cancelled, Failed}
	if len(transitions) != len(all) || len(subStates) != 2 {
		t.Fatalf("the tables have %d states and %d with sub-states", len(transitions), len(subStates))
	}
	allowed := map[[2]State]bool{
		{Pending, Pending}: true, {Pending, Running}: true, {Pending, Cancelled}: true, {Pending, Failed}: true,
		{Running, Running}: true, {Running, Finished}: true, {Running, Cancelled}: true, {Running, Failed}: true,
	}
	for _, from := range all {
		if !from.Valid() {
			t.Errorf("%s is not valid", from)
		}
		if from.Final() != (len(transitions[from]) == 0) {
			t.Errorf("%s: Final is %v with %d transitions", from, from.Final(), len(transitions[from]))
		}
		for _, to := range all {
			if got := from.CanBecome(to); got != allowed[[2]State{from, to}] {
				t.Errorf("%s can become %s: %v", from, to, got)
			}
		}
		if from.CanBecome("Paused") || State("Paused").CanBecome(from) {
			t.Errorf("a state that is none takes part, with %s", from)
		}
		for local := range map[string]bool{"Queued": true, "Held": true, "Placing": true, "Submitted": true, "HeldAtSite": true, "Executing": true, "Suspended": true, "Requeued": true, "Cancelling": true} {
			want := from == Pending && (local == "Queued" || local == "Held") || from == Running && local != "Held" && local != "Queued"
			if got := from.HasSubState(local); got != want {
				t.Errorf("%s has the sub-state %s: %v", from, local, got)
			}
		}
	}
	if State("Paused").Valid() || State("Paused").CanBecome("Paused") {
		t.Error("Paused is a state")
	}
}

func TestStateOfForeignWords(t *testing.T) {
	for word, want := range map[string]State{
		"Running": Running, " Finished\n": Finished, "Terminated": Cancelled, "RUNNING_EXECUTING": Running,
		"RUNNING_STAGE_OUT": Running, "Pending:Held": Pending, "Weird": "Weird", "_": "_", "": "",
	} {
		if got := stateOf(word); got != want {
			t.Errorf("%q is %q, want %q", word, got, want)
		}
	}
}
