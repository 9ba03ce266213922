// Package text holds everything that an employee reads, in English and in
// Simplified Chinese. Nothing here decides; the callers say what happened, by
// stable words, and get sentences.
package text

import (
	"embed"
	"slices"
	"strings"
	"sync"

	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
)

// The languages of the catalogs, as BCP 47 tags.
const (
	English = "en"
	Chinese = "zh-CN"
)

//go:embed en.json zh-CN.json
var catalogs embed.FS

// loadBundle reads both catalogs once; they are part of the program, and a test
// reads them too.
var loadBundle = sync.OnceValue(func() *i18n.Bundle {
	b := i18n.NewBundle(language.English)
	for _, tag := range []string{English, Chinese} {
		if raw, err := catalogs.ReadFile(tag + ".json"); err == nil {
			// A catalog that does not parse leaves its words untranslated; the
			// tests keep such a catalog from being built.
			_, _ = b.ParseMessageFileBytes(raw, tag+".json")
		}
	}
	return b
})

// Text speaks one language. It is safe for concurrent use.
type Text struct {
	tag string
	loc *i18n.Localizer
}

// For gives the language that fits a locale such as "zh_CN.UTF-8" or "en-GB":
// Chinese for all that is written in simplified characters, English for the rest.
func For(locale string) *Text {
	tag := English
	if simplified(locale) {
		tag = Chinese
	}
	return &Text{tag: tag, loc: i18n.NewLocalizer(loadBundle(), tag)}
}

// simplified says whether a locale is Chinese in simplified script. POSIX
// locales carry a charset and a modifier, which BCP 47 does not know.
func simplified(locale string) bool {
	locale, _, _ = strings.Cut(locale, ".")
	locale, _, _ = strings.Cut(locale, "@")
	tag, err := language.Parse(strings.ReplaceAll(strings.TrimSpace(locale), "_", "-"))
	if err != nil {
		return false
	}
	base, _ := tag.Base()
	script, _ := tag.Script()
	return base.String() == "zh" && script.String() == "Hans"
}

// Tag is the language as a BCP 47 tag: [English] or [Chinese].
func (t *Text) Tag() string { return t.tag }

// Say gives the sentence of that name, filled with data (a map or a struct). An
// unknown name comes back as it is.
func (t *Text) Say(name string, data any) string {
	return t.say(&i18n.LocalizeConfig{MessageID: name, TemplateData: data}, name)
}

// Count is [Text.Say] for a sentence that changes with a number.
func (t *Text) Count(name string, n int) string {
	return t.say(&i18n.LocalizeConfig{
		MessageID:    name,
		PluralCount:  n,
		TemplateData: map[string]any{"Count": n},
	}, name)
}

func (t *Text) say(c *i18n.LocalizeConfig, fallback string) string {
	s, err := t.loc.Localize(c)
	if err != nil && s == "" {
		return fallback
	}
	return s
}

// Word translates a stable word of a group ("state", "reason", "protection",
// "severity"); a word that the catalog does not know comes back as it is.
func (t *Text) Word(group, word string) string {
	if word == "" {
		return ""
	}
	name := group + "." + word
	if s := t.Say(name, nil); s != name {
		return s
	}
	return word
}

// pick chooses among texts by BCP 47 tag: the one nearest to this language,
// else English, else the first by name, so that everybody sees something.
func (t *Text) pick(texts map[string]string) string {
	tags := make([]string, 0, len(texts))
	for tag := range texts {
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	for _, tag := range tags {
		if simplified(tag) == (t.tag == Chinese) && (t.tag == Chinese || english(tag)) {
			return texts[tag]
		}
	}
	for _, tag := range tags {
		if english(tag) {
			return texts[tag]
		}
	}
	if len(tags) > 0 {
		return texts[tags[0]]
	}
	return ""
}

func english(tag string) bool {
	return tag == English || strings.HasPrefix(tag, English+"-")
}
