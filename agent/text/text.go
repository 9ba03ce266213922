// Package text holds everything that an employee reads, in English and in
// Simplified Chinese. Nothing here decides; the callers say what happened, by
// stable words, and get sentences.
package text

import (
	"slices"
	"strings"

	"golang.org/x/text/language"
)

// The languages of the catalogs, as BCP 47 tags.
const (
	English = "en"
	Chinese = "zh-CN"
)

// Text speaks one language. It is safe for concurrent use.
type Text struct {
	tag     string
	catalog catalog
}

// For gives the language that fits a locale such as "zh_CN.UTF-8" or "en-GB":
// Chinese for all that is written in simplified characters, English for the rest.
func For(locale string) *Text {
	tag := English
	if simplified(locale) {
		tag = Chinese
	}
	return &Text{tag: tag, catalog: catalogOf(tag)}
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

// Say gives the sentence of that name, its places filled with data. An unknown
// name comes back as it is.
func (t *Text) Say(name string, data map[string]any) string {
	if s, ok := t.catalog[name]; ok {
		return fill(s, data)
	}
	return t.form(name, otherForm, data)
}

// Count is [Text.Say] for a sentence that changes with a number.
func (t *Text) Count(name string, n int) string {
	return t.form(name, formFor(t.tag, n), map[string]any{"Count": n})
}

func (t *Text) form(name, form string, data map[string]any) string {
	for _, f := range []string{form, otherForm} {
		if s, ok := t.catalog[name+"."+f]; ok {
			return fill(s, data)
		}
	}
	return name
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
