"""One sweep as an Optuna study: what is drawn, judged, repeated and learned from before."""
