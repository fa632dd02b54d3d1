package service

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/soap"
)

// Broker is what a Service needs of a broker, as *broker.Broker says it. With Options.Decides it is asked who
// may do what, whether a job would be taken, and what of a site is free, and nothing else.
type Broker interface {
	Ready() <-chan struct{}
	Permit(ctx context.Context, op string, p broker.Permission) (soap.Principal, error)
	Belongs(ctx context.Context, vo string) error
	Admissible(ctx context.Context, doc []byte, p *broker.Promise) error
	Outlook(site, share string, cpus int, length time.Duration, vo string) (schedule.Outlook, error)
	KeepRoom(holds []schedule.Hold)
	Survey() []broker.SiteStatus
	ChangeRoom(agreement string, holds []schedule.Hold)

	Reserves(site string) bool
	Reserving() []string
	Reserve(ctx context.Context, site, owner string, r adapters.Reservation) (adapters.Handle, error)
	Reservations(ctx context.Context, site string, tags []adapters.Tag) ([]adapters.ReservationState, error)
	Unreserve(ctx context.Context, site string, h adapters.Handle) error

	Reference(id string) soap.EPR
	SubmitPromised(ctx context.Context, req *bes.CreateActivityRequest, p broker.Promise) (*broker.Promised, error)
	GetActivityStatuses(ctx context.Context, req *bes.StatusRequest) ([]bes.StatusResult, error)
	TerminateActivities(ctx context.Context, activities []soap.EPR) ([]bes.Result, error)
	Follow(ctx context.Context, after map[string]int) (tell func(emit func([]broker.Evidence) error) error)
}

var _ Broker = (*broker.Broker)(nil)
