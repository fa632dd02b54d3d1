package bestest

import (
	"context"

	"github.com/portolan-project/portolan/bes"
)

var _ bes.Matcher = (*Service)(nil)

// MatchActivity says of every document that the one place there is runs it at once,
// unless the service was stopped.
func (s *Service) MatchActivity(_ context.Context, req *bes.CreateActivityRequest) (*bes.Match, error) {
	if err := s.failing("MatchActivity"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return &bes.Match{
			Could: true, Sentence: "it waits until activities are taken again", Nearest: "nothing else",
			Places: []bes.MatchPlace{{Name: "memory", Could: true, Reasons: []string{"it is stopped", "it is full"}}},
		}, nil
	}
	return &bes.Match{Could: true, Now: true, Sentence: "it would run in memory", Places: []bes.MatchPlace{{Name: "memory", Could: true, Now: true}}}, nil
}
