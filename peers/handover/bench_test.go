package handover_test

import (
	"testing"
	"time"

	"github.com/portolan-project/portolan/peers/handover"
)

// BenchmarkHandover is one job from the origin to a peer and back, both sides, with each
// record encoded where it must be written: what the rules cost of a routed job.
func BenchmarkHandover(b *testing.B) {
	a, p := handover.Gateway{Domain: "a"}, handover.Gateway{Domain: "b"}
	b.ReportAllocs()
	for b.Loop() {
		var atA, atB *handover.Job
		var mail []handover.Send
		now := start
		step := func(g handover.Gateway, j **handover.Job, in handover.Input) {
			s, err := g.Step(*j, in, now)
			if err != nil {
				b.Fatal(err)
			}
			if s.Save == handover.SaveFirst && s.Job != nil {
				if _, err := s.Job.Encode(); err != nil {
					b.Fatal(err)
				}
			}
			*j = s.Job
			for _, o := range s.Do {
				if m, ok := o.(handover.Send); ok {
					mail = append(mail, m)
				}
			}
		}
		deliver := func() {
			for len(mail) > 0 {
				m := mail[0]
				mail = mail[1:]
				if m.To == "a" {
					step(a, &atA, handover.Received{From: "b", Message: m.Message, Terms: terms})
				} else {
					step(p, &atB, handover.Received{From: "a", Message: m.Message, Terms: terms})
				}
			}
		}
		step(a, &atA, handover.Submit{Key: key, Digest: "sha256:1"})
		step(a, &atA, handover.Forward{To: "b", Terms: terms, Hops: 3})
		deliver()
		step(p, &atB, handover.PlaceHere{})
		step(p, &atB, handover.Evidence{Token: "1.1", Shows: handover.HasStarted})
		deliver()
		now = now.Add(time.Minute)
		step(p, &atB, handover.Evidence{Token: "1.1", Shows: handover.HasEnded, Result: success, Used: handover.CPU(1, time.Minute)})
		deliver()
		if atA.Phase != handover.Over {
			b.Fatal(atA.Phase)
		}
	}
}
