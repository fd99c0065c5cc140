package schedule

import "time"

// When says in words when the view is to be refreshed: every 5m, cron 0 3 * * *, after parents.
func (s Schedule) When() string {
	return when(s.Kind, s.Every, s.After, s.MaxLag, s.Cron, s.Timezone)
}

// When says in words when the settings want views to be refreshed; "" when they do not say.
func (s Settings) When() string {
	timezone := ""
	if s.Timezone != nil {
		timezone = *s.Timezone
	}
	return when(s.kind(), s.Every, s.After, s.MaxLag, s.Cron, timezone)
}

func when(kind Kind, every, after, maxLag *time.Duration, cron *string, timezone string) string {
	switch {
	case kind == KindEvery && every != nil:
		return "every " + FormatDuration(*every)
	case kind == KindAfter && after != nil:
		return FormatDuration(*after) + " after the last run"
	case kind == KindMaxLag && maxLag != nil:
		return "no older than " + FormatDuration(*maxLag)
	case kind == KindCron && cron != nil && (timezone == "" || timezone == "UTC"):
		return "cron " + *cron
	case kind == KindCron && cron != nil:
		return "cron " + *cron + " " + timezone
	case kind == KindAfterParents:
		return "after parents"
	case kind == KindOnChange:
		return "on change"
	}
	return ""
}
