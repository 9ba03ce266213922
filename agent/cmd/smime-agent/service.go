package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (a *app) serviceCommand() *cobra.Command {
	parent := &cobra.Command{Use: "service", Short: "Run, install and control the service"}
	var o ServeOptions
	run := &cobra.Command{
		Use: "run", Short: "Run the service in the foreground; the system's service manager calls this", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Address, o.Version = a.address, a.Version
			return a.Serve(cmd.Context(), o)
		},
	}
	run.Flags().StringVar(&o.ConfigFile, "config", "", "settings file (default: the system's)")
	run.Flags().StringVar(&o.PolicyDir, "policy", "", "folder of managed policy (default: the system's)")
	run.Flags().StringVar(&o.StateDir, "state", "", "folder of the service's record (default: the system's)")
	run.Flags().BoolVar(&o.Managed, "managed", false, "the system's service manager calls this")
	_ = run.Flags().MarkHidden("managed") // an error means that there is no such flag
	parent.AddCommand(run)
	for _, c := range []struct {
		action ControlAction
		short  string
	}{
		{ServiceInstall, "Register the service with the system"},
		{ServiceUninstall, "Take the service out of the system; keys and certificates stay"},
		{ServiceStart, "Start the service"},
		{ServiceStop, "Stop the service"},
		{ServiceRestart, "Stop the service and start it"},
		{ServiceStatus, "Say whether the system runs the service"},
	} {
		parent.AddCommand(&cobra.Command{
			Use: string(c.action), Short: c.short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if err := a.Control(cmd.Context(), c.action); err != nil {
					return err
				}
				if c.action == ServiceStatus {
					return nil // Control has said it
				}
				return a.say("%s", a.text.Say("cli.done", map[string]any{"Action": "service " + string(c.action)}))
			},
		})
	}
	return parent
}

// manCommand writes the manual pages; packages are built with it.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			a.root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Title: "SMIME-AGENT", Section: "1", Source: "smime-agent", Date: a.sourceDate()}
			return doc.GenManTree(a.root, header, args[0])
		},
	}
}

// sourceDate makes builds repeatable (reproducible-builds.org, SOURCE_DATE_EPOCH).
func (a *app) sourceDate() *time.Time {
	at := a.Now()
	if seconds, err := strconv.ParseInt(a.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		at = time.Unix(seconds, 0).UTC()
	}
	return &at
}
