package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
)

// gatewayConfig is the file of serve --config. Each part of it has a field here;
// whatever else stands in the file is refused with its line.
type gatewayConfig struct {
	Sites []siteConfig `yaml:"sites"`
	// Domain is what the gateway speaks for, among those that share an etcd cluster; as --domain.
	Domain string `yaml:"domain"`
	// Limits bound how many jobs are at the sites at once.
	Limits limitsConfig `yaml:"limits"`
	// Entitlements say what VOs and users are entitled to under the policy fairshare, relative to
	// others: "vo:bio" with 2 for twice the usual.
	Entitlements map[string]float64 `yaml:"entitlements"`
	// Policies are programs of their own that order jobs or choose places, by the name that a
	// setting gives as plugin:NAME.
	Policies map[string]pluginpolicy.Settings `yaml:"policies"`
	// Peer is how the gateway works with those of other domains; nil is not at all.
	Peer *peerConfig `yaml:"peer"`
	// Agreements say what the gateway promises; nil is the usual.
	Agreements *agreementsConfig `yaml:"agreements"`
}

// limitsConfig bounds jobs that are on their way to sites or at them; 0 is no bound.
type limitsConfig struct {
	// EachUser bounds those of each user who is not named.
	EachUser int `yaml:"eachUser"`
	// EachVO bounds those of each VO that is not named.
	EachVO int `yaml:"eachVO"`
	// Users bound those of a user, by name.
	Users map[string]int `yaml:"users"`
	// VOs bound those of a VO, by name.
	VOs map[string]int `yaml:"vos"`
}

// siteConfig is one entry of sites.
type siteConfig struct {
	// Name is the site's: what submit --site says, what CandidateHosts may give, and
	// the directory of what is kept of it. It can't change while jobs are there.
	Name string `yaml:"name"`
	// Type is what runs the jobs there: boinc, condor, plugin, shell or slurm. The
	// type of a name can't change.
	Type string `yaml:"type"`
	// Settings are the type's own.
	Settings adapters.Settings `yaml:"settings"`
	// Accounts give the local account under which the jobs of a principal run.
	Accounts map[string]string `yaml:"accounts"`
	// AccountDefault is the local account of the jobs of all others; without it, the
	// account that the site is configured with.
	AccountDefault string `yaml:"accountDefault"`
	// Ahead is how many jobs the site is given beyond those that it can run at once, so that it need
	// not wait for the next: the fewer, the more of the jobs wait here, in the order of the policies
	// in force; without it, as many as its slots, and 20 000 where it orders many as easily as one.
	Ahead *int `yaml:"ahead"`
	// Fence says how the gateway makes sure by itself that the site runs nothing any more, when it
	// does not answer for long; see portolan fence.
	Fence fenceConfig `yaml:"fence"`
	// Model says of the site what its manager does not tell, for matching and policies.
	Model siteModel `yaml:"model"`

	line int // of the entry
}

const (
	// maxConfig bounds the file, in bytes.
	maxConfig = 1 << 20
	maxSites  = 64
)

// configProblem is something that is wrong with the file.
type configProblem struct {
	line int // 0: with the file as a whole
	what string
}

// configProblems are an error that names the file and the lines.
type configProblems struct {
	file string
	list []configProblem
}

// Error gives a line for each problem.
func (p *configProblems) Error() string {
	slices.SortStableFunc(p.list, func(a, b configProblem) int { return cmp.Compare(a.line, b.line) })
	lines := make([]string, len(p.list))
	for i, one := range p.list {
		lines[i] = p.file + ": " + one.what
		if one.line > 0 {
			lines[i] = fmt.Sprintf("%s:%d: %s", p.file, one.line, one.what)
		}
	}
	return strings.Join(lines, "\n")
}

func (p *configProblems) add(line int, format string, args ...any) {
	p.list = append(p.list, configProblem{line, fmt.Sprintf(format, args...)})
}

// addErr adds what a decoder says, which begins with the line that it speaks of;
// at is the line where it does not.
func (p *configProblems) addErr(at int, err error) {
	for text := range strings.SplitSeq(severalLines.ReplaceAllString(strings.TrimPrefix(sentence(err), "yaml: "), "\n$1"), "\n") {
		if m := decoderLine.FindStringSubmatch(text); m != nil {
			line, _ := strconv.Atoi(m[1])
			p.add(line, "%s", m[2])
			continue
		}
		p.add(at, "%s", text)
	}
}

var (
	decoderLine  = regexp.MustCompile(`^line (\d+): (.*)$`)
	severalLines = regexp.MustCompile(`; (line \d+: )`)
)

// readConfig reads and checks the file. The error is configProblems, or that the
// file could not be read.
func readConfig(file string) (*gatewayConfig, []byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("the configuration could not be read: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, nil, fmt.Errorf("the configuration could not be read: %w", err)
	}
	c, err := parseConfig(file, b)
	return c, b, err
}

// parseConfig checks a configuration in all that can be checked without asking a
// site's manager.
func parseConfig(file string, b []byte) (*gatewayConfig, error) {
	p := &configProblems{file: file}
	if len(b) > maxConfig {
		p.add(0, "it has more than %d bytes", maxConfig)
		return nil, p
	}
	var root yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&root); errors.Is(err, io.EOF) {
		p.add(0, "it is empty: give at least a site")
		return nil, p
	} else if err != nil {
		p.addErr(0, err)
		return nil, p
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		p.add(0, "it holds more than one document: write one")
		return nil, p
	}
	var whole adapters.Settings // for its strictness
	c := &gatewayConfig{}
	err := root.Decode(&whole)
	if err == nil {
		err = whole.Decode(c)
	}
	if err != nil {
		p.addErr(root.Line, err)
		return nil, p
	}
	for i, line := range siteLines(&root) {
		if i < len(c.Sites) {
			c.Sites[i].line = line
		}
	}
	c.check(p)
	if c.Peer != nil {
		c.Peer.check(c.Domain, &root, p)
	}
	if len(p.list) > 0 {
		return nil, p
	}
	return c, nil
}

// siteLines gives the line of each entry of sites.
func siteLines(root *yaml.Node) []int {
	var lines []int
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "sites" {
			for _, item := range root.Content[i+1].Content {
				lines = append(lines, item.Line)
			}
		}
	}
	return lines
}

func (c *gatewayConfig) check(p *configProblems) {
	switch n := len(c.Sites); {
	case n == 0:
		p.add(0, "it names no site, so that jobs would have nowhere to run: give at least one under sites")
	case n > maxSites:
		p.add(c.Sites[maxSites].line, "there are %d sites; a gateway has at most %d", n, maxSites)
	}
	if why := badDomain(c.Domain); why != "" {
		p.add(0, "domain: %s", why)
	}
	c.Limits.check(p)
	if c.Agreements != nil {
		c.Agreements.check(p)
	}
	for _, who := range slices.Sorted(maps.Keys(c.Entitlements)) {
		if n := c.Entitlements[who]; !whoPattern.MatchString(who) || who == "*" || !(n > 0) || n > 1e6 {
			p.add(0, `entitlements: %q: %g: write "vo:NAME" or "user:NAME" with a number above 0, at most a million`, who, n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Policies)) {
		s := c.Policies[name]
		if err := (policy.Setting{Name: policy.PluginPrefix + name}).Check(policy.Scheduling); err != nil {
			p.add(0, "policies: %s", sentence(err))
		}
		if err := s.Validate(); err != nil {
			p.add(0, "policies.%s: %s", name, sentence(err))
		}
	}
	seen := map[string]int{}
	for i := range c.Sites {
		s := &c.Sites[i]
		if why := badSiteName(s.Name); why != "" {
			p.add(s.line, "%s", why)
		} else if first := seen[strings.ToLower(s.Name)]; first > 0 {
			p.add(s.line, "the site of line %d is called %s too: names are unique, whatever their case", first, s.Name)
		} else {
			seen[strings.ToLower(s.Name)] = s.line
		}
		t, ok := siteTypes[s.Type]
		if !ok {
			p.add(s.line, "there is no type %q of sites; the types are %s", s.Type, strings.Join(siteRegistry().Types(), ", "))
			continue
		}
		if err := checkSettings(t, s.Settings); err != nil {
			p.addErr(s.line, err)
		}
		if s.Ahead != nil && *s.Ahead < 0 {
			p.add(s.line, "ahead: %d is negative", *s.Ahead)
		}
		s.Fence.check(func(format string, args ...any) { p.add(s.line, format, args...) })
		s.Model.check(func(format string, args ...any) { p.add(s.line, format, args...) })
		for who, account := range s.Accounts {
			if who == "" || account == "" {
				p.add(s.line, "accounts: %q: %q has an empty side: leave a principal out to give it accountDefault", who, account)
			}
		}
	}
}

// forBroker gives them as the broker takes them.
func (l *limitsConfig) forBroker() schedule.Limits {
	return schedule.Limits{EachOwner: l.EachUser, EachVO: l.EachVO, Owner: l.Users, VO: l.VOs}
}

func (l *limitsConfig) check(p *configProblems) {
	bad := func(key string, n int) {
		if n < 0 {
			p.add(0, "limits.%s: %d is negative: 0 is no bound", key, n)
		}
	}
	bad("eachUser", l.EachUser)
	bad("eachVO", l.EachVO)
	for _, name := range slices.Sorted(maps.Keys(l.Users)) {
		bad("users."+name, l.Users[name])
	}
	for _, name := range slices.Sorted(maps.Keys(l.VOs)) {
		bad("vos."+name, l.VOs[name])
	}
}

// badSiteName says what is wrong with a site's name. It is a directory's name too.
func badSiteName(s string) string {
	const rule = "a name has 1 to 63 letters, digits, '-' and '.', and begins with a letter or a digit"
	if s == "" {
		return "the site has no name: " + rule
	}
	for i, r := range []byte(s) {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '-' && r != '.') || i >= 63 {
			return fmt.Sprintf("a site can't be called %q: %s", s, rule)
		}
	}
	return ""
}

// checkSettings holds settings to their type's struct, and to its own rules where
// it has some.
func checkSettings(t siteType, s adapters.Settings) error {
	into := t.settings()
	if err := s.Decode(into); err != nil {
		return err
	}
	if d, ok := into.(interface{ EnsureDefaults() }); ok {
		d.EnsureDefaults()
	}
	if v, ok := into.(interface{ Validate() error }); ok {
		return v.Validate()
	}
	return nil
}

// alikeSettings compares what is said, not how it is written.
func alikeSettings(a, b adapters.Settings) bool {
	var x, y any
	return a.Decode(&x) == nil && b.Decode(&y) == nil && reflect.DeepEqual(x, y)
}

func (a *app) configCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Check the configuration of a gateway",
		Example: "  portolan config check gateway.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	check := &cobra.Command{
		Use:   "check FILE…",
		Short: "Say what is wrong with a configuration",
		Long: `Read the configuration of a gateway as serve --config does, and say what is wrong with it, a
line "file:line: what is wrong" for each thing. Nothing is started, and no site is asked.`,
		Example:               "  portolan config check /etc/portolan/gateway.yaml",
		Args:                  needs(1, 0, "the name of a file"),
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			bad := false
			for _, file := range args {
				_, _, err := readConfig(file)
				if p, ok := errors.AsType[*configProblems](err); ok {
					fmt.Fprintln(a.out, plainLines(p.Error()))
					bad = true
				} else if err != nil {
					return usagef("%v", err)
				}
			}
			if bad {
				return quietly(exitFailed)
			}
			return nil
		},
	}
	cmd.AddCommand(check)
	return cmd
}
