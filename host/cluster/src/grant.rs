//! placeholder until merged
use partita_core::{
    model::ModelId,
    state::{Grant, Models},
};
pub(crate) const ANNOTATION: &str = crate::translate::keys::GRANT;
pub(crate) fn parse(_t: &str, _m: impl Fn(u8) -> Option<ModelId>, _models: &Models) -> Result<Grant, String> {
    Err(String::new())
}
pub(crate) fn print(_g: &Grant, _m: impl Fn(u8) -> Option<ModelId>, _models: &Models) -> String {
    String::new()
}
