package config_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"smime-agent/agent/config"
)

var update = flag.Bool("update", false, "write the documentation instead of comparing it")

const documentPath = "../../docs/settings.md"

// TestDocument holds docs/settings.md to the table; go generate makes it.
func TestDocument(t *testing.T) {
	want := document()
	if *update {
		if err := os.WriteFile(documentPath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the table says; run make generate", documentPath)
	}
}

const documentHead = `# Settings

<!-- Generated from the table in agent/config; change it there, then: make generate -->

Settings come from three places. The first that sets a value wins:

1. **managed policy**: on Linux the files ` + "`/etc/smime-agent/policy.d/*.yaml`" + `, read in the order of their names; a later file wins over an earlier one. What policy sets can be changed by nobody else;
2. **flags** on the service's command line, for an administrator at the console. Secrets are not taken from there;
3. **the configuration file**: on Linux ` + "`/etc/smime-agent/config.yaml`" + `.

What nobody sets has its default. A line is ` + "`name: value`" + `; an empty value counts as not set.

- A file that another user could have written is not used at all: file and folders must belong to root (or to the service's account) and must not be writable by others.
- A value that cannot be used is reported as a condition, and the last good value stays in force; a lower source does not step in. The same holds for a policy file that cannot be read any more. After a restart nothing is known of earlier values: then the default counts for a wrong value, and lower sources count for a file that cannot be read.
- A duration is a number with a unit: ` + "`30s`, `15m`, `1h30m`, `7d`" + `.
- ` + "`smime-agent policy`" + ` shows each effective value and where it comes from.

The service looks at its sources once a minute; on Linux the kernel tells it of a change at once, and it looks every ten minutes all the
same, for what the kernel does not tell (behind a link, on a network's file system). Windows tells of a change of the policy key at once, and
macOS (not run) of one of a file; both look once a minute besides. The default places are those of Linux.
`

// document writes the table for people.
func document() string {
	var b strings.Builder
	b.WriteString(documentHead)
	section(&b, "In English", []string{"setting", "type", "default", "since", "change takes effect", "every user may see it", "meaning"},
		[]string{"at the next start", "within a minute", "yes", "no"}, func(s config.Setting) string { return s.Help })
	section(&b, "中文", []string{"设置", "类型", "默认值", "起始版本", "更改生效", "所有用户可见", "含义"},
		[]string{"下次启动时", "一分钟内", "是", "否"}, func(s config.Setting) string { return s.HelpZH })
	return b.String()
}

func section(b *strings.Builder, title string, head, words []string, help func(config.Setting) string) {
	fmt.Fprintf(b, "\n## %s\n\n| %s |\n|%s\n", title, strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	choose := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	for _, s := range config.Table() {
		value := ""
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		kind := string(s.Type)
		if len(s.Options) > 0 {
			kind = "`" + strings.Join(s.Options, "`, `") + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s | %s | %s |\n", s.Name, kind, value, s.Since,
			choose(s.Restart, words[0], words[1]), choose(s.Visible, words[2], words[3]), help(s))
	}
}
