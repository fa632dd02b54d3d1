package broker

import (
	"context"
	"strings"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/store"
)

// URIs that the factory attributes name.
const (
	// ManagerGateway is the LocalResourceManagerType of a gateway as a whole.
	ManagerGateway = "http://portolan-project.org/ns/2026/resource-manager/gateway"
	// ExtensionSubmissionID: CreateActivity takes a SubmissionId and is then
	// idempotent.
	ExtensionSubmissionID = bes.NSPortolan + "/submission-id"
	// ExtensionControl: the activity control port type is offered.
	ExtensionControl = bes.NSPortolan + "/activity-control"

	namingBasic = "http://schemas.ggf.org/bes/2006/08/bes/naming/BasicWSAddressing"
)

// GetFactoryAttributesDocument tells what the gateway is and has. Activities
// listed and counted are those that the caller may see.
func (b *Broker) GetFactoryAttributesDocument(ctx context.Context) (*bes.FactoryAttributes, error) {
	const op = "broker.GetFactoryAttributesDocument"
	who, err := b.caller(ctx, op, Submit)
	if err != nil {
		return nil, err
	}
	select {
	case <-b.ready:
	default:
		return nil, errStarting
	}
	owner := who.Name
	if b.oversees(who) {
		owner = ""
	}
	fa := &bes.FactoryAttributes{
		IsAcceptingNewActivities: b.accepting.Load() && b.unhealthy.Load() == nil,
		CommonName:               b.cfg.CommonName,
		LongDescription:          b.cfg.LongDescription,
		NamingProfiles:           []string{namingBasic},
		Extensions:               []string{ExtensionSubmissionID, ExtensionControl, ExtensionMatch},
		LocalResourceManagerType: ManagerGateway,
	}
	recs, n, err := b.listed(ctx, owner)
	if err != nil {
		return nil, err
	}
	fa.TotalNumberOfActivities = n
	for _, rec := range recs {
		fa.Activities = append(fa.Activities, b.reference(rec.ID))
	}
	var sum bes.BasicResource
	alike := true
	for _, s := range b.roster.Load().sites {
		c := s.capacity.Load()
		if c == nil {
			continue
		}
		r := bes.BasicResource{
			ResourceName: s.name, OperatingSystem: c.OperatingSystem, OperatingSystemVersion: c.OSVersion,
			CPUArchitecture: c.CPUArchitecture, CPUCount: float64(c.CPUs), CPUSpeed: c.CPUSpeed,
			PhysicalMemory: float64(c.Memory), VirtualMemory: float64(c.VirtualMemory),
		}
		if len(fa.ContainedResources) == 0 {
			sum = r
		} else {
			alike = alike && strings.EqualFold(sum.OperatingSystem, r.OperatingSystem) && sum.CPUArchitecture == r.CPUArchitecture
			sum.CPUCount += r.CPUCount
			sum.PhysicalMemory += r.PhysicalMemory
			sum.VirtualMemory += r.VirtualMemory
			sum.CPUSpeed = min(sum.CPUSpeed, r.CPUSpeed)
			if sum.OperatingSystemVersion != r.OperatingSystemVersion {
				sum.OperatingSystemVersion = ""
			}
		}
		fa.ContainedResources = append(fa.ContainedResources, r)
	}
	if len(fa.ContainedResources) > 0 {
		sum.ResourceName = b.cfg.CommonName
		if !alike { // no single answer would be true
			sum.OperatingSystem, sum.OperatingSystemVersion, sum.CPUArchitecture = "", "", ""
		}
		fa.Basic = &sum
	}
	fa.TotalContainedResources = int64(len(fa.ContainedResources))
	return fa, nil
}

// StopAcceptingNewActivities is remembered across restarts; stopping twice is no
// error.
func (b *Broker) StopAcceptingNewActivities(ctx context.Context) error {
	return b.accept(ctx, "broker.StopAcceptingNewActivities", false)
}

// StartAcceptingNewActivities undoes StopAcceptingNewActivities.
func (b *Broker) StartAcceptingNewActivities(ctx context.Context) error {
	return b.accept(ctx, "broker.StartAcceptingNewActivities", true)
}

func (b *Broker) accept(ctx context.Context, op string, yes bool) error {
	if _, err := b.caller(ctx, op, Manage); err != nil {
		return err
	}
	select {
	case <-b.ready:
	default:
		return errStarting
	}
	value := "no"
	if yes {
		value = "yes"
	}
	b.settings.Lock()
	defer b.settings.Unlock()
	if err := b.cfg.Store.SetSetting(ctx, settingAccepting, []byte(value)); err != nil {
		return err
	}
	b.accepting.Store(yes)
	return nil
}

// listed gives the newest activities of an owner, everybody's for "", and how many there
// are. Replicas are not among them.
func (b *Broker) listed(ctx context.Context, owner string) (recs []store.Job, n int64, err error) {
	if n, err = b.cfg.Store.Count(ctx, owner); err != nil {
		return nil, 0, err
	}
	if owner == "" {
		replicas, err := b.cfg.Store.Count(ctx, replicaOwner)
		if err != nil {
			return nil, 0, err
		}
		n = max(0, n-replicas)
	}
	for before := ""; len(recs) < b.cfg.Limits.Listed; {
		page, err := b.cfg.Store.List(ctx, store.ListOptions{Owner: owner, Before: before, Limit: b.cfg.Limits.Listed})
		if err != nil {
			return nil, 0, err
		}
		for _, rec := range page {
			if before = rec.ID; rec.Status.Of == "" && len(recs) < b.cfg.Limits.Listed {
				recs = append(recs, rec)
			}
		}
		if len(page) < b.cfg.Limits.Listed {
			break
		}
	}
	return recs, n, nil
}
