package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"smime-agent/agent/local"
	"smime-agent/agent/status"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show in what state everything is", Args: cobra.NoArgs,
		Long: "Show in what state everything is: of yourself, or as an administrator of all.\n\n" +
			"Exit codes: 0 in order, 1 a warning, 2 an error, 3 the service is not running.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watch(cmd.Context(), asJSON)
			}
			return a.status(cmd.Context(), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON, whose schema is in docs/status.md")
	cmd.Flags().BoolVar(&watch, "watch", false, "show again after each change, until interrupted")
	return cmd
}

func (a *app) status(ctx context.Context, asJSON bool) error {
	var r status.Report
	err := a.call(ctx, func(c *local.Client) (err error) {
		r, err = c.Status(ctx)
		return err
	})
	if err != nil {
		if e, ok := errors.AsType[*local.Error](err); ok && asJSON && e.Reason == local.ReasonNotRunning {
			_ = a.json(status.Unreachable(a.Version, a.Now()), "  ") // the exit code says it too
		}
		return err
	}
	if asJSON {
		err = a.json(r, "  ")
	} else {
		err = status.Text(a.Stdout, r, a.options())
	}
	if err != nil {
		return err
	}
	if code := r.ExitCode(); code != exitOK {
		return exit{code: code}
	}
	return nil
}

// clearScreen moves to the upper left and clears (ECMA-48, CUP and ED).
const clearScreen = "\x1b[H\x1b[2J"

// watch ends well when it is interrupted: that is how it ends.
func (a *app) watch(ctx context.Context, asJSON bool) error {
	_, terminal := a.Width()
	return a.call(ctx, func(c *local.Client) error {
		return c.Watch(ctx, func(r status.Report) error {
			if asJSON {
				return a.json(r, "")
			}
			if terminal {
				if _, err := io.WriteString(a.Stdout, clearScreen); err != nil {
					return err
				}
			}
			if err := status.Text(a.Stdout, r, a.options()); err != nil {
				return err
			}
			if terminal {
				return a.say("\n%s", a.text.Say("cli.watching", nil))
			}
			return a.say("---")
		})
	})
}

func (a *app) json(v any, indent string) error {
	e := json.NewEncoder(a.Stdout)
	e.SetIndent("", indent)
	return e.Encode(v)
}

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	var mail string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check what can be wrong on this machine", Args: cobra.NoArgs,
		Long: "Check what can be wrong on this machine: the service's own checks, and those of\n" +
			"your session.\n\nExit codes: 0 all passed, 2 some failed, 3 the service is not running.\n\n" +
			"With --mail, look instead through your own old mail: for which keys it is encrypted,\n" +
			"and whether they are here. PATH is a Maildir, an mbox file, one message, or a folder\n" +
			"with any of these in it, such as a profile of Thunderbird. No content is read.\n\n" +
			"Exit codes: 0 all can be opened, 1 some need keys that the agent never had or could\n" +
			"not be judged, 2 some need a key of the agent that is gone.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("mail") {
				return a.oldMail(cmd.Context(), mail, asJSON)
			}
			checks, err := a.examine(cmd.Context())
			if writing := a.writeChecks(checks, asJSON); writing != nil {
				return writing
			}
			if err != nil {
				return err
			}
			if checks.Failed() > 0 {
				return exit{code: exitError}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().StringVar(&mail, "mail", "", "look through the old mail at `PATH`: which keys does it need?")
	return cmd
}

func (a *app) writeChecks(c status.Checks, asJSON bool) error {
	if asJSON {
		return a.json(c, "  ")
	}
	return c.Text(a.Stdout, a.options())
}

// examine makes the checks of this session, then the service's. The error is
// why the service could not be asked.
func (a *app) examine(ctx context.Context) (status.Checks, error) {
	checks := status.Checks{Checks: []status.Check{a.storeCheck(ctx)}}
	err := a.call(ctx, func(c *local.Client) error {
		r, err := c.Status(ctx)
		if err != nil {
			return err
		}
		checks.Checks = append(checks.Checks, status.Check{Name: "service", OK: true, Detail: "answers, version " + r.Version})
		if helper, ok := a.helperCheck(r); ok {
			checks.Checks = append(checks.Checks, helper)
		}
		own, err := c.Diagnose(ctx)
		checks.Checks = append(checks.Checks, own.Checks...)
		return err
	})
	if err != nil {
		c, _ := a.sort(ctx, err)
		checks.Checks = append(checks.Checks, status.Check{
			Name: "service", Detail: a.text.Say("cli."+c.key+".text", nil), Cure: a.text.Say("cli."+c.key+".cure", nil),
		})
	}
	return checks, err
}

func (a *app) storeCheck(ctx context.Context) status.Check {
	names, err := a.Stores(ctx)
	found := strings.Join(names, ", ")
	if found == "" {
		found = "none found"
	}
	c := status.Check{Name: "stores", OK: err == nil, Detail: found}
	if err != nil {
		c.Detail += "; not usable: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		c.Cure = "See store-denied, store-locked and store-failed in the runbook."
	}
	return c
}

// helperCheck asks whether this user's own session is lent; nobody expects that
// of root, who seldom logs in.
func (a *app) helperCheck(r status.Report) (status.Check, bool) {
	me, err := a.User()
	if err != nil {
		return status.Check{}, false
	}
	for _, u := range r.Users {
		if u.ID == me.ID {
			return status.Check{Name: "helper", OK: true, Detail: "attached, " + u.Helper}, true
		}
	}
	for _, c := range r.Credentials {
		if c.User == me.ID {
			return status.Check{
				Name: "helper", Detail: "not running in your session", Cure: "Log out and in again.",
			}, true
		}
	}
	return status.Check{}, false
}

func (a *app) policyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "policy", Short: "Show the settings in force and where each comes from", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.call(cmd.Context(), func(c *local.Client) error {
				s, err := c.Settings(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return a.json(s, "  ")
				}
				return s.Text(a.Stdout, a.options())
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}
