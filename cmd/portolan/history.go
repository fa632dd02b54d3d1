package main

import (
	"strconv"

	"github.com/spf13/cobra"
)

func (a *app) historyCmd() *cobra.Command {
	var flags clientFlags
	var form string
	cmd := &cobra.Command{
		Use:   "history [-o table|json|wide] ID",
		Short: "Tell what happened to an activity, and why",
		Long: `Tell every step of an activity, oldest first, and why it happened. A service of another make
may not keep a history.`,
		Example:           "  portolan history 01890a5d-ac96-774b-bcce-b302099a8057",
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
			return table(a.out, head, rows)
		},
	}
	flags.add(cmd)
	formFlag(cmd, &form, "table", "json", "wide")
	return cmd
}
