// Package agreementtest has an agreement provider in memory, and the suite that
// every agreement.Service passes, wherever it is.
package agreementtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Service is an agreement provider in memory. The zero value has one template,
// takes up to Capacity offers that name it, and keeps nothing that was promised:
// tests turn states with Turn and Set. Only who made an agreement sees
// it.
type Service struct {
	// Offered are the templates; nil is that of Template.
	Offered []agreement.Template
	// Capacity is how many agreements may be observed at once; 0 is 1000.
	Capacity int
	// Now tells the time; nil is time.Now.
	Now func() time.Time

	mu    sync.Mutex
	kept  map[string]*kept
	order []string // keys, the oldest first
	// Requests are the offers that came, refused ones too.
	requests []agreement.CreateRequest
	reasons  map[string]*etree.Element
	prepared map[string]*prepared // by key
}

type prepared struct {
	agreement.Preparation
	owner, offer string
	confirmed    bool
}

type kept struct {
	owner      string
	properties agreement.Properties
}

var (
	_ agreement.Service  = (*Service)(nil)
	_ agreement.Lister   = (*Service)(nil)
	_ agreement.Preparer = (*Service)(nil)
)

// Earliest is when there is room again.
var Earliest = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// Template gives a template of a job with a promise: batch, version 1.
func Template() agreement.Template {
	t, err := agreement.ParseTemplate([]byte(`<wsag:Template xmlns:wsag="` + agreement.NS + `" wsag:TemplateId="1" wsag:AgreementId="t-1">
 <wsag:Name>batch</wsag:Name>
 <wsag:Context>
  <wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider>
  <wsag:TemplateId>1</wsag:TemplateId>
  <wsag:TemplateName>batch</wsag:TemplateName>
 </wsag:Context>
 <wsag:Terms><wsag:All>
  <wsag:ServiceDescriptionTerm wsag:Name="job" wsag:ServiceName="run">
   <jsdl:JobDefinition xmlns:jsdl="http://schemas.ggf.org/jsdl/2005/11/jsdl"><jsdl:JobDescription><jsdl:Resources><jsdl:TotalCPUCount><jsdl:Exact>4.0</jsdl:Exact></jsdl:TotalCPUCount></jsdl:Resources></jsdl:JobDescription></jsdl:JobDefinition>
  </wsag:ServiceDescriptionTerm>
  <wsag:GuaranteeTerm wsag:Name="soon" wsag:Obligated="ServiceProvider">
   <wsag:ServiceScope wsag:ServiceName="run"/>
   <wsag:ServiceLevelObjective><wsag:KPITarget><wsag:KPIName>queueWait</wsag:KPIName><wsag:CustomServiceLevel>PT10M</wsag:CustomServiceLevel></wsag:KPITarget></wsag:ServiceLevelObjective>
   <wsag:BusinessValueList><wsag:Penalty><wsag:AssessmentInterval><wsag:Count>1</wsag:Count></wsag:AssessmentInterval><wsag:ValueUnit>credit</wsag:ValueUnit><wsag:ValueExpression>5</wsag:ValueExpression></wsag:Penalty></wsag:BusinessValueList>
  </wsag:GuaranteeTerm>
 </wsag:All></wsag:Terms>
 <wsag:CreationConstraints>
  <wsag:Item wsag:Name="cpus"><wsag:Location xmlns:j="http://schemas.ggf.org/jsdl/2005/11/jsdl">/wsag:AgreementOffer/wsag:Terms/wsag:All/wsag:ServiceDescriptionTerm[@wsag:Name="job"]//j:TotalCPUCount/j:Exact</wsag:Location>
   <wsag:ItemConstraint xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:minInclusive value="1"/><xs:maxInclusive value="64"/></wsag:ItemConstraint></wsag:Item>
 </wsag:CreationConstraints>
</wsag:Template>`))
	if err != nil {
		panic(err) // it is ours
	}
	return *t
}

// Offer makes an offer of a template: its terms as they are.
func Offer(t agreement.Template) agreement.Offer {
	o := agreement.Offer{Agreement: t.Agreement}
	o.ID = ""
	o.Context.TemplateID, o.Context.TemplateName = t.TemplateID, t.Name
	return o
}

func (s *Service) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Service) templates() []agreement.Template {
	if s.Offered == nil {
		return []agreement.Template{Template()}
	}
	return s.Offered
}

// Templates gives all, to everybody.
func (s *Service) Templates(context.Context) ([]agreement.Template, error) {
	return slices.Clone(s.templates()), nil
}

// Create takes an offer that names a template, has not expired and fits.
func (s *Service) Create(ctx context.Context, req *agreement.CreateRequest) (string, error) {
	return s.create(ctx, req, agreement.Observed)
}

// CreatePending takes the same offers; Turn decides on them.
func (s *Service) CreatePending(ctx context.Context, req *agreement.CreateRequest) (string, error) {
	return s.create(ctx, req, agreement.Pending)
}

func (s *Service) create(ctx context.Context, req *agreement.CreateRequest, state agreement.State) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.make(ctx, req, state)
}

// make is create; s.mu is held.
func (s *Service) make(ctx context.Context, req *agreement.CreateRequest, state agreement.State) (string, error) {
	s.requests = append(s.requests, *req)
	c := &req.Offer.Context
	if !slices.ContainsFunc(s.templates(), func(t agreement.Template) bool {
		return t.Name == c.TemplateName && t.TemplateID == c.TemplateID
	}) {
		return "", agreement.Refuse(agreement.NoSuchTemplate, fmt.Sprintf("there is no template %q with the id %q; ask for the templates and offer by one of them", c.TemplateName, c.TemplateID))
	}
	if c.ServiceProvider != agreement.Responder {
		return "", agreement.Refuse(agreement.NotCompliant, "ServiceProvider must be AgreementResponder", "the other side provides nothing here")
	}
	if !c.ExpirationTime.IsZero() && !c.ExpirationTime.After(s.now()) {
		return "", agreement.Refuse(agreement.Expired, "the offer expired before it came; set a later ExpirationTime")
	}
	most := s.Capacity
	if most == 0 {
		most = 1000
	}
	live := 0
	for _, k := range s.kept {
		if !k.properties.State.Final() {
			live++
		}
	}
	if live >= most {
		r := agreement.Refuse(agreement.NoCapacity, "all that there is has been promised; offer again for later")
		r.Earliest = Earliest
		return "", r
	}
	key := fmt.Sprintf("%08d", len(s.order)+1)
	p := agreement.Properties{Agreement: req.Offer.Agreement, State: state}
	p.ID = key
	for _, g := range p.Agreement.Guarantees() {
		p.Guarantees = append(p.Guarantees, agreement.GuaranteeTermState{Term: g.Name, State: agreement.NotDetermined})
	}
	for _, svc := range p.Agreement.Services() {
		for _, d := range svc.Descriptions {
			p.Services = append(p.Services, agreement.ServiceTermState{Term: d.Name, State: agreement.NotReady})
		}
	}
	if s.kept == nil {
		s.kept = map[string]*kept{}
	}
	s.kept[key] = &kept{soap.PrincipalFrom(ctx).Name, p}
	s.order = append(s.order, key)
	return key, nil
}

// find gives an agreement that the caller may see; s.mu is held.
func (s *Service) find(ctx context.Context, key string) (*kept, error) {
	k := s.kept[key]
	s.drop(key)
	if k == nil || k.owner != soap.PrincipalFrom(ctx).Name {
		return nil, fail.Errorf("agreementtest", fail.NotFound, key, "there is no agreement with that key")
	}
	return k, nil
}

// Agreement gives the properties of one of the caller's.
func (s *Service) Agreement(ctx context.Context, key string) (*agreement.Properties, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(ctx, key)
	if err != nil {
		return nil, err
	}
	p := k.properties
	p.Guarantees, p.Services = slices.Clone(p.Guarantees), slices.Clone(p.Services)
	return &p, nil
}

// Terminate begins the end of an agreement, if its state lets it.
func (s *Service) Terminate(ctx context.Context, key string, reason *etree.Element) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(ctx, key)
	if err != nil {
		return err
	}
	next, err := k.properties.State.After(agreement.EventTerminate)
	if err != nil {
		return err
	}
	if p := s.prepared[key]; p != nil && !p.confirmed {
		next = agreement.Rejected // nothing ran for it
	}
	k.properties.State = next
	if s.reasons == nil {
		s.reasons = map[string]*etree.Element{}
	}
	s.reasons[key] = reason
	return nil
}

// Prepare takes the same offers as Create; the agreement waits for Confirm.
func (s *Service) Prepare(ctx context.Context, req *agreement.CreateRequest, p agreement.Preparation) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner, offer := soap.PrincipalFrom(ctx).Name, string(xmldoc.Marshal(req.Offer.Encode()))
	for key, k := range s.prepared {
		if k.owner != owner || k.Key != p.Key || !k.Until.Equal(p.Until) {
			continue
		}
		s.drop(key)
		switch state := s.kept[key].properties.State; {
		case k.offer != offer:
			return "", agreement.Refuse(agreement.WrongState, "another offer was prepared by that Key")
		case state != agreement.Pending && !k.confirmed:
			return "", agreement.Refuse(agreement.WrongState, "what was prepared by that Key was let go")
		}
		return key, nil
	}
	if !p.Until.After(s.now()) {
		return "", agreement.Refuse(agreement.Expired, "the offer was to be confirmed before it came; set a later Until")
	}
	key, err := s.make(ctx, req, agreement.Pending)
	if err != nil {
		return "", err
	}
	if s.prepared == nil {
		s.prepared = map[string]*prepared{}
	}
	s.prepared[key] = &prepared{Preparation: p, owner: owner, offer: offer}
	return key, nil
}

// drop lets go what was not confirmed in time; s.mu is held.
func (s *Service) drop(key string) {
	if k, p := s.kept[key], s.prepared[key]; p != nil && !p.confirmed && k.properties.State == agreement.Pending && !p.Until.After(s.now()) {
		k.properties.State = agreement.Rejected
	}
}

// Confirm makes what was prepared Observed, if it is in time.
func (s *Service) Confirm(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(ctx, key)
	if err != nil {
		return err
	}
	switch p := s.prepared[key]; {
	case p == nil:
		return agreement.Refuse(agreement.WrongState, "the agreement was not prepared; there is nothing to confirm")
	case p.confirmed:
	case k.properties.State != agreement.Pending:
		return agreement.Refuse(agreement.WrongState, "the agreement was let go before it was confirmed")
	default:
		k.properties.State, p.confirmed = agreement.Observed, true
	}
	return nil
}

// List gives the caller's agreements.
func (s *Service) List(ctx context.Context, before string, limit int) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for _, key := range slices.Backward(s.order) {
		if s.kept[key].owner == soap.PrincipalFrom(ctx).Name && (before == "" || strings.Compare(key, before) < 0) && len(keys) < limit {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// Turn lets an event happen to an agreement.
func (s *Service) Turn(key string, e agreement.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept[key]
	if k == nil {
		return fail.Errorf("agreementtest", fail.NotFound, key, "there is no agreement with that key")
	}
	next, err := k.properties.State.After(e)
	if err != nil {
		return err
	}
	k.properties.State = next
	return nil
}

// Set gives every service and guarantee of an agreement a state.
func (s *Service) Set(key string, service agreement.ServiceTermState, guarantee agreement.GuaranteeTermState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.kept[key].properties
	for i := range p.Services {
		service.Term = p.Services[i].Term
		p.Services[i] = service
	}
	for i := range p.Guarantees {
		guarantee.Term = p.Guarantees[i].Term
		p.Guarantees[i] = guarantee
	}
}

// Requests gives the offers that came, refused ones too.
func (s *Service) Requests() []agreement.CreateRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Reason gives the reason for which an agreement was to end.
func (s *Service) Reason(key string) *etree.Element {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reasons[key]
}
