module github.com/mvsched/mvsched/test/monitoring

go 1.26.0
