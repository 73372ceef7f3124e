package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ferry/manifest"
)

func newListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list [NAME]",
		Short:   "List the versions in the store",
		Long:    "Lists all versions in the store, or those of one package, oldest first." + "\n" + exitHelp,
		Example: "  ferry list\n  ferry list k2s --json",
		Args:    between(0, 1, "at most one NAME"),
		RunE:    func(cmd *cobra.Command, args []string) error { return runList(cmd.Context(), a, args) },
	}
}

// listedVersion is a line of list.
type listedVersion struct {
	Ref string `json:"ref"`
	manifest.Version
}

func runList(ctx context.Context, a *app, args []string) error {
	archive, err := a.openArchive(ctx, false)
	if err != nil {
		return err
	}
	defer archive.Close()
	versions, err := archive.Versions(ctx)
	if err != nil {
		return err
	}
	listed := []listedVersion{}
	for _, v := range versions {
		if len(args) == 0 || v.Ref.Name == args[0] {
			listed = append(listed, listedVersion{v.Ref.String(), v})
		}
	}
	return a.print(listed, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "VERSION\tFILES\tSIZE\tADDED\tMANIFEST\tFROM")
		for _, v := range listed {
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", v.Ref, v.Files, size(v.Size), v.Added.Format("2006-01-02 15:04"), v.Manifest.Short(), v.Source)
		}
		t.Flush()
	})
}
