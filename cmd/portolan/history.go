package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/portolan-project/portolan/internal/broker/schedule"
)

func (a *app) historyCmd() *cobra.Command {
	var flags clientFlags
	var form string
	var why bool
	cmd := &cobra.Command{
		Use:   "history [--why] [-o table|json|wide] ID",
		Short: "Tell what happened to an activity, and why",
		Long: `Tell every step of an activity, oldest first, and why it happened. A service of another make
may not keep a history.

--why adds the record of each choice of a place, as a Portolan gateway keeps it: the policies
that decided, the places in their order with their marks, and what ruled the others out. With
-o json it is then an object of history and decisions.`,
		Example: `  portolan history 01890a5d-ac96-774b-bcce-b302099a8057
  portolan history --why 01890a5d-ac96-774b-bcce-b302099a8057`,
		Args:              needs(1, 1, "ID"),
		ValidArgsFunction: a.completeIDs(&flags, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, acts, err := a.targets(flags, args)
			if err != nil {
				return err
			}
			control, err := c.controller()
			if err != nil {
				return err
			}
			entries, err := control.GetActivityHistory(cmd.Context(), acts[0].epr)
			if err != nil {
				return c.refused(err)
			}
			var decisions []schedule.Decision
			if why {
				if decisions, err = c.decisions(cmd.Context(), acts[0]); err != nil {
					return err
				}
			}
			if form == "json" {
				type line struct {
					Sequence int     `json:"sequence"`
					Time     *string `json:"time"`
					State    string  `json:"state"`
					SubState *string `json:"substate"`
					Event    string  `json:"event"`
					Site     *string `json:"site"`
					Attempt  int     `json:"attempt"`
					Reason   string  `json:"reason"`
				}
				lines := []line{}
				for _, e := range entries {
					lines = append(lines, line{e.Sequence, stamp(e.Time), string(e.State), known(e.SubState), e.Event, known(e.Site), e.Attempt, e.Reason})
				}
				if why {
					return asJSON(a.out, struct {
						History   []line              `json:"history"`
						Decisions []schedule.Decision `json:"decisions"`
					}{lines, decisions})
				}
				return asJSON(a.out, lines)
			}
			head := []string{"TIME", "STATE", "EVENT", "REASON"}
			if form == "wide" {
				head = []string{"SEQ", "TIME", "STATE", "EVENT", "SITE", "ATTEMPT", "REASON"}
			}
			var rows [][]string
			for _, e := range entries {
				state := string(e.State)
				if e.SubState != "" {
					state += "/" + e.SubState
				}
				cells := []string{clock(e.Time), state, e.Event, e.Reason}
				if form == "wide" {
					cells = []string{strconv.Itoa(e.Sequence), clock(e.Time), state, e.Event, e.Site, strconv.Itoa(e.Attempt), e.Reason}
				}
				rows = append(rows, cells)
			}
			if err := table(a.out, head, rows); err != nil || !why {
				return err
			}
			return a.showDecisions(decisions)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&why, "why", false, "tell the reasons of each choice of a place")
	formFlag(cmd, &form, "table", "json", "wide")
	return cmd
}
