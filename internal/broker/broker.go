package broker

import (
	"context"
	"errors"
)

// Broker gives jobs a life. It is a bes.Service and a bes.Controller.
type Broker struct {
	cfg   Config
	ready chan struct{}
}

// New makes a Broker; Run starts it.
func New(cfg Config) (*Broker, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Broker{cfg: cfg, ready: make(chan struct{})}, nil
}

// Ready is closed once Run has read what the store remembers; before that, the
// methods answer fail.Unavailable.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// Run works until ctx ends and returns its cause.
func (b *Broker) Run(ctx context.Context) error {
	<-ctx.Done()
	return errors.ErrUnsupported
}
